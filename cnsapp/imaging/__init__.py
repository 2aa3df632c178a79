"""Any image file to one well-defined RGB array, thumbnails, and the store of originals."""
