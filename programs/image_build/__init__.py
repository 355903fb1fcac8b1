"""Functions that CloudFormation calls while it deploys a stack; each module runs on its own in AWS Lambda."""
