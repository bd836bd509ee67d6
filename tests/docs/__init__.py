"""The documentation does what it says: its code is executed, its promises are kept."""
