"""What the server tells of its work: traces, metrics and logs, and what is known of each call to fill them."""
