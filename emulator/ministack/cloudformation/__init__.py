"""Our resource types, and what MiniStack leaves out of CloudFormation."""
