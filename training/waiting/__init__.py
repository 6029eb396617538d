"""What processes that train together know of each other, and how long they wait."""
