"""Every supported set of packages: made, and the built wheel tried with it."""
