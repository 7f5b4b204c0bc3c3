"""Real servers, alone and in clusters, for tests, the campaign and benchmarks."""
