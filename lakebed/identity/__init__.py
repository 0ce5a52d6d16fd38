"""Who a person is: a graph of identity edges that a consumer of the log keeps, and what follows from it."""
