"""Studies: recipes over seeds, and what their accuracies and seconds allow to be said."""
