"""What every process of tgw shares: settings, logs, listening rules, signals."""
