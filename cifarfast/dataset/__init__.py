"""A converted data set on disk: two `.beton` files and the manifest that vouches for them."""
