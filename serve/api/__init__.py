"""The HTTP API over a `Backend`: a plain FastAPI application that knows no Ray and holds no model."""
