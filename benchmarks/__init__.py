"""The numbers that the product promises, measured: `make bench`."""
