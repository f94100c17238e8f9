"""Getting CIFAR-10 (or a stand-in) from whatever form it comes in to `.beton` files and a manifest."""
