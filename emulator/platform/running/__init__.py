"""Starting, finding and stopping a local AWS, and what it keeps in its state folder."""
