"""Networks, their exponential moving average, and their BatchNorm statistics."""
