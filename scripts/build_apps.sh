#!/usr/bin/env bash
# Install the locked npm packages and build the SMART apps into smart_apps/dist, with the Node of the virtual environment.
set -euo pipefail
cd "$(dirname "$0")/../smart_apps"
npm ci --no-audit --no-fund --loglevel=error
npm run build --silent
