"""Turn cohorts — HEST-1k, Space Ranger folders, legacy ST — into a store that training reads."""
