"""CloudWatch: MiniStack keeps metrics and alarms, and here they are recorded, read and acted on as AWS does it."""
