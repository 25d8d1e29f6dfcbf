/** Fetches the slices and the segmentation of a report over WADO-RS. */
import type { Session } from "@client/session";
import { decodeSeg, type Overlay, overlayOf } from "./segmentation";
import { type Slice, slicesOf } from "./series";

export interface SeriesSource {
  study: string | undefined;
  series: string | undefined;
  segmentation: string | undefined;
}

export async function loadSlices(session: Session, source: SeriesSource): Promise<Slice[]> {
  if (!source.study || !source.series) return [];
  return slicesOf(await session.dicomWeb.seriesMetadata(source.study, source.series));
}

export async function loadOverlay(session: Session, source: SeriesSource): Promise<Overlay> {
  if (!source.study || !source.segmentation) throw new Error("The report names no segmentation");
  const files = await session.dicomWeb.retrieveSeries(source.study, source.segmentation);
  return overlayOf(files.map(decodeSeg));
}
