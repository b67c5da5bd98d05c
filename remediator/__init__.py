"""Acts: takes signals, decides, repairs, verifies and records."""
