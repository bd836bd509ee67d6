"""Every way to be let in and to be refused, on every way in and out."""
