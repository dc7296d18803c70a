"""What the commands do, each from its arguments to its result; the command line only parses."""
