"""The testbed of the Tool Attention paper in our own words: tools, tasks, methods, caches."""
