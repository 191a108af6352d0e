"""What the learned parts are made with. Nothing here runs when questions are answered."""
