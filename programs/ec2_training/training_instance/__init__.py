"""One training on one EC2 instance, with the inputs, variables and outputs of a SageMaker training job."""
