"""The tests, one file for each module or for what a user would see."""
