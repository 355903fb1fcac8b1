"""REST APIs of API Gateway, in front of functions and endpoints.

MiniStack has them, and calls what is integrated with all rights, whatever has been deployed. Here a function's policy
or the integration's role is asked, a stage serves what was deployed to it, and the rest is refused.
"""
