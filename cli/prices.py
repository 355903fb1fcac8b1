"""What a job costs, for a person, so that nothing starts without saying it; the prices stand in `infra.prices`."""

from __future__ import annotations

from infra.prices import PRICE_LIST, price_note, usd_per_hour


def job_price(
    instance_type: str, instances: int = 1, *, volume_gb: int = 0, seconds: int = 0, jobs: int = 1, at_once: int = 1
) -> str:
    """Return what some like jobs cost with their volumes, as a phrase for a person: by the hour, and at most.

    `seconds` is how long each job may run; without, nothing says what they cost at most. `at_once` run at a time.
    """
    price, note = usd_per_hour(instance_type, volume_gb), price_note(instance_type)
    hours = jobs * instances * seconds / 3600
    if price is None:
        return f"{note}; at most {hours:.1f} instance-hours" if hours else note
    at_most = f", at most {price * hours:.2f} USD in {hours:.1f} instance-hours" if hours else ""
    return "; ".join(filter(None, (f"{price * instances * at_once:.3f} USD per hour{at_most}", PRICE_LIST, note)))
