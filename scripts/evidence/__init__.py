"""Evidence about trained models: studies over folds and weights, and the page that shows them."""
