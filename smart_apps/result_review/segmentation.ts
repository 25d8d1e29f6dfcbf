/**
 * Reads a DICOM Segmentation into one labelmap per source slice. Pure.
 * DICOM PS3.3 C.8.20 (Segmentation), PS3.5 §8.1.1 (packing of 1-bit pixels: first pixel in the least significant bit)
 */
import dicomParser, { type DataSet, type Element } from "dicom-parser";

export interface Segment {
  number: number;
  label: string;
}

export interface SegFrame {
  segmentNumber: number;
  sourceSopInstanceUid: string | undefined;
  /** Frame of a multi-frame source, from 1. */
  sourceFrame: number;
  /** Pixels inside the segment, counted row by row from 0. */
  pixels: Uint32Array;
}

export interface DecodedSeg {
  rows: number;
  columns: number;
  segments: Segment[];
  frames: SegFrame[];
}

const UNCOMPRESSED = new Set(["1.2.840.10008.1.2", "1.2.840.10008.1.2.1"]);
const TAG = {
  transferSyntax: "x00020010",
  segmentationType: "x00620001",
  segmentSequence: "x00620002",
  segmentNumber: "x00620004",
  segmentLabel: "x00620005",
  segmentIdentification: "x0062000a",
  referencedSegmentNumber: "x0062000b",
  frames: "x00280008",
  rows: "x00280010",
  columns: "x00280011",
  bitsAllocated: "x00280100",
  shared: "x52009229",
  perFrame: "x52009230",
  derivationImage: "x00089124",
  sourceImage: "x00082112",
  referencedSop: "x00081155",
  referencedFrame: "x00081160",
  pixelData: "x7fe00010",
} as const;

/**
 * Which of `count` bits from `bitOffset` are set, as positions from 0; the least significant bit of a byte comes first.
 * Empty bytes are most of a mask: they are passed over without looking at their bits.
 */
export function setBits(bytes: Uint8Array, bitOffset: number, count: number): Uint32Array {
  const end = bitOffset + count;
  if (end > bytes.length * 8) throw new Error("The segmentation has fewer pixels than it announces");
  const found: number[] = [];
  for (let at = bitOffset >> 3; at << 3 < end; at++) {
    const byte = bytes[at] ?? 0;
    if (byte === 0) continue;
    for (let bit = Math.max(bitOffset, at << 3); bit < Math.min(end, (at + 1) << 3); bit++) {
      if ((byte >> (bit & 7)) & 1) found.push(bit - bitOffset);
    }
  }
  return Uint32Array.from(found);
}

function items(dataSet: DataSet | undefined, tag: string): DataSet[] {
  const element: Element | undefined = dataSet?.elements[tag];
  return (element?.items ?? []).flatMap((item) => (item.dataSet ? [item.dataSet] : []));
}

function first(dataSet: DataSet | undefined, tag: string): DataSet | undefined {
  return items(dataSet, tag)[0];
}

/** Labels may hold Chinese: SpecificCharacterSet of our own SEG is UTF-8, and ASCII reads the same. */
function textOf(dataSet: DataSet, tag: string): string {
  const element = dataSet.elements[tag];
  if (!element) return "";
  const bytes = dataSet.byteArray.subarray(element.dataOffset, element.dataOffset + element.length) as Uint8Array;
  return new TextDecoder("utf-8").decode(bytes).replace(/[\0 ]+$/, "");
}

function segmentsOf(dataSet: DataSet): Segment[] {
  return items(dataSet, TAG.segmentSequence).map((item) => ({
    number: item.uint16(TAG.segmentNumber) ?? 0,
    label: textOf(item, TAG.segmentLabel),
  }));
}

interface FrameHeader {
  segmentNumber: number;
  sourceSopInstanceUid: string | undefined;
  sourceFrame: number;
}

function frameHeader(frame: DataSet | undefined, shared: DataSet | undefined): FrameHeader {
  const segment = first(frame, TAG.segmentIdentification) ?? first(shared, TAG.segmentIdentification);
  const derivation = first(frame, TAG.derivationImage) ?? first(shared, TAG.derivationImage);
  const source = first(derivation, TAG.sourceImage);
  return {
    segmentNumber: segment?.uint16(TAG.referencedSegmentNumber) ?? 0,
    sourceSopInstanceUid: source?.string(TAG.referencedSop),
    sourceFrame: Number(source?.string(TAG.referencedFrame) ?? 1),
  };
}

function pixelBytes(dataSet: DataSet): Uint8Array {
  const element = dataSet.elements[TAG.pixelData];
  if (!element) throw new Error("The segmentation has no pixels");
  if (!UNCOMPRESSED.has(dataSet.string(TAG.transferSyntax) ?? "")) throw new Error("The segmentation is compressed");
  return dataSet.byteArray.subarray(element.dataOffset, element.dataOffset + element.length) as Uint8Array;
}

/** Masks of the frames of a BINARY segmentation; any other kind is refused in words. */
export function decodeSeg(part10: Uint8Array): DecodedSeg {
  const dataSet = dicomParser.parseDicom(part10);
  const rows = dataSet.uint16(TAG.rows) ?? 0;
  const columns = dataSet.uint16(TAG.columns) ?? 0;
  const kind = dataSet.string(TAG.segmentationType);
  if (kind !== "BINARY") throw new Error(`A segmentation of type ${kind ?? "?"} cannot be shown`);
  if (dataSet.uint16(TAG.bitsAllocated) !== 1) throw new Error("A binary segmentation has one bit a pixel");
  const size = rows * columns;
  const bytes = pixelBytes(dataSet);
  const shared = first(dataSet, TAG.shared);
  const perFrame = items(dataSet, TAG.perFrame);
  const count = Number(dataSet.string(TAG.frames) ?? perFrame.length);
  if (perFrame.length !== count) throw new Error("The segmentation does not describe each of its frames");
  const frames = perFrame.map((frame, index) => ({
    ...frameHeader(frame, shared),
    pixels: setBits(bytes, index * size, size),
  }));
  return { rows, columns, segments: segmentsOf(dataSet), frames };
}

/** Key of a source slice: SOP Instance UID and frame. */
export function sliceKey(sopInstanceUid: string, frame: number): string {
  return `${sopInstanceUid}#${frame}`;
}

export interface Overlay {
  segments: Segment[];
  /** Segment number of each pixel, by slice key. */
  labelmaps: Map<string, Uint8Array>;
  /** Pixels of each segment on each slice: segment number, then slice key. */
  areas: Map<number, Map<string, number>>;
}

function paint(seg: DecodedSeg, frame: SegFrame, overlay: Overlay): void {
  if (!frame.sourceSopInstanceUid) throw new Error("The segmentation does not name its source slices");
  const key = sliceKey(frame.sourceSopInstanceUid, frame.sourceFrame);
  const labelmap = overlay.labelmaps.get(key) ?? new Uint8Array(seg.rows * seg.columns);
  for (const pixel of frame.pixels) labelmap[pixel] = frame.segmentNumber;
  overlay.labelmaps.set(key, labelmap);
  const areas = overlay.areas.get(frame.segmentNumber) ?? new Map<string, number>();
  areas.set(key, (areas.get(key) ?? 0) + frame.pixels.length);
  overlay.areas.set(frame.segmentNumber, areas);
}

/** Paints all frames onto the slices they were drawn on; where segments overlap, the higher number is on top. */
export function overlayOf(segs: DecodedSeg[]): Overlay {
  const overlay: Overlay = { segments: [], labelmaps: new Map(), areas: new Map() };
  for (const seg of segs) {
    overlay.segments.push(...seg.segments);
    const ordered = [...seg.frames].sort((a, b) => a.segmentNumber - b.segmentNumber);
    for (const frame of ordered) paint(seg, frame, overlay);
  }
  return overlay;
}

/** Slice on which a segment is largest. */
export function largestSlice(overlay: Overlay, segmentNumber: number): string | undefined {
  let best: string | undefined;
  let most = 0;
  for (const [key, area] of overlay.areas.get(segmentNumber) ?? []) {
    if (area > most) [best, most] = [key, area];
  }
  return best;
}

/** The level a segment label names: "L4-L5 disc", "Disc L4/L5" and "L4L5" are L4-L5; a vertebra names none. */
export function levelOfLabel(label: string): string | undefined {
  const match = /\b(T1[0-2]|L[1-6])\s*[-/–_]?\s*(T1[12]|L[1-6]|S1)\b/i.exec(label);
  return match ? `${match[1]}-${match[2]}`.toUpperCase() : undefined;
}
