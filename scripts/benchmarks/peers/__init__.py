"""Programs with which losslab is compared, written as in tutorials."""
