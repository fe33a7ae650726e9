"""What the examples share. They run as scripts, whose folder Python finds this package in."""
