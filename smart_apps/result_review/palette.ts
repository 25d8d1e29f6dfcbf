/** Colours of segments: discs warm and distinct per level, vertebrae quiet, the canal cyan; names in the legend carry the meaning. */
import { levelOfLabel, type Segment } from "./segmentation";

export type Rgb = [number, number, number];

const DISCS: Record<string, Rgb> = {
  "L5-S1": [255, 99, 71],
  "L4-L5": [255, 176, 32],
  "L3-L4": [232, 222, 60],
  "L2-L3": [126, 217, 87],
  "L1-L2": [64, 200, 160],
  "T12-L1": [214, 120, 255],
  "T11-T12": [255, 130, 190],
};
const CANAL: Rgb = [45, 196, 255];
const VERTEBRAE: Rgb[] = [[120, 144, 190], [150, 130, 190], [110, 165, 175]];
const OTHERS: Rgb[] = [[255, 130, 190], [200, 160, 110], [160, 200, 255]];

export type SegmentKind = "disc" | "vertebra" | "canal" | "other";

export function kindOf(label: string): SegmentKind {
  if (levelOfLabel(label) || /disc|椎间盘/i.test(label)) return "disc";
  if (/canal|sac|椎管|硬膜囊/i.test(label)) return "canal";
  if (/vertebra|sacrum|body|椎体|骶|^\s*(T12|L[1-6]|S1)\b/i.test(label)) return "vertebra";
  return "other";
}

export function colourOf(segment: Segment): Rgb {
  const kind = kindOf(segment.label);
  if (kind === "canal") return CANAL;
  if (kind === "disc") return DISCS[levelOfLabel(segment.label) ?? ""] ?? OTHERS[0] ?? CANAL;
  const list = kind === "vertebra" ? VERTEBRAE : OTHERS;
  return list[segment.number % list.length] ?? CANAL;
}
