"""``soulfra up``: every part of Soulfra Monitor from one configuration, in the foreground."""
