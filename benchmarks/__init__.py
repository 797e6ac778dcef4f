"""What a gateway adds to a call: CPU time, latency and memory, measured side by side and told as ratios."""
