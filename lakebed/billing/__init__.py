"""What usage costs: money, price books, invoices, quotas. Nothing here reads a clock or a tier."""
