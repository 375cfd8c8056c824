"""What a found network is used for: classification, detection and person re-identification."""
