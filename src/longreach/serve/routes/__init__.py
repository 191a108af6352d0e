"""What can be asked, a family of addresses a file."""
