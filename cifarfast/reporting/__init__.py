"""The report of a run: evidence out of its folder, plots of it, and a page that shows them."""
