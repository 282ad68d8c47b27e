"""What happens to a model in service: drift, performance with late labels, alerts."""
