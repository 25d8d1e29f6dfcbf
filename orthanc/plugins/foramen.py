# Foramen - the Orthanc plug-ins, loaded as one script: Orthanc's Python plug-in takes one.
# Copyright (C) 2026 The Foramen authors
#
# This program is free software: you can redistribute it and/or modify it under the terms of the GNU General Public
# License as published by the Free Software Foundation, either version 3 of the License, or (at your option) any later
# version. This program is distributed in the hope that it will be useful, but WITHOUT ANY WARRANTY; without even the
# implied warranty of MERCHANTABILITY or FITNESS FOR A PARTICULAR PURPOSE. See the GNU General Public License for more
# details. You should have received a copy of the GNU General Public License along with this program. If not, see
# <https://www.gnu.org/licenses/>.
#
# SPDX-License-Identifier: GPL-3.0-or-later
"""Loads what stages 1 (receive) and 2 (notify) need inside Orthanc: each registers its callbacks on import."""

from __future__ import annotations

import notify_stable_study  # noqa: F401
import refuse_other_pixels  # noqa: F401
