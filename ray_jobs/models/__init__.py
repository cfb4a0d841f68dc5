"""Every model, loaded one way. Knows no Ray; torch and OpenVINO are imported only when an engine starts."""
