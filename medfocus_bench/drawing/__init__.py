"""Pictures for people: explanations over images, panels, bars and contact sheets."""
