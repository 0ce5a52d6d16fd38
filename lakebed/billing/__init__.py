"""The cost of usage: money, price books, invoices, quotas. Nothing here reads a clock or a tier."""
