/** Fetches the slices and the segmentation of a report over WADO-RS. */
import { firstValue } from "@client/dicomweb";
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

const KEY_IMAGE_SIDE = 1100;

/** Key images as the AI's presentation states show them, each as a picture that the page may show. */
export async function loadKeyImages(session: Session, study: string, series: string): Promise<string[]> {
  const states = await session.dicomWeb.seriesMetadata(study, series);
  const number = (state: (typeof states)[number]) => Number(firstValue(state, "00200013") ?? 0);
  const uids = states.sort((a, b) => number(a) - number(b)).map((state) => firstValue<string>(state, "00080018") ?? "");
  const pictures = await Promise.all(uids.map((uid) => session.dicomWeb.rendered(study, series, uid, KEY_IMAGE_SIDE)));
  return pictures.map((picture) => URL.createObjectURL(picture));
}
