"""Makes the page of `make trace ID=… HTML=…`: a waterfall of the hops of an order, a report or an upload."""
