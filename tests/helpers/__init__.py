"""What several test files share: toy networks, people's networks, a browser, answers by hand."""
