"""What each page of the image database does."""
