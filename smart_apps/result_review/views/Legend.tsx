/** Which colour is which structure; each can be hidden. */
import { EyeInvisibleOutlined, EyeOutlined } from "@ant-design/icons";
import { Button, Slider } from "antd";
import { useState } from "react";
import { useTranslation } from "react-i18next";
import { colourOf, kindOf, type SegmentKind } from "../palette";
import { levelOfLabel, type Overlay, type Segment } from "../segmentation";
import { segmentName } from "../wording";

interface LegendProps {
  overlay: Overlay;
  hidden: ReadonlySet<number>;
  onHidden: (hidden: ReadonlySet<number>) => void;
  opacity: number;
  onOpacity: (opacity: number) => void;
  focus: string | undefined;
}

/** Discs and canal fit; the vertebrae, each with body and arch, do not. */
const MOST_AT_ONCE = 8;
const KINDS: SegmentKind[] = ["disc", "vertebra", "canal", "other"];

/** The short name: discs by level, the only segment of its kind by the kind, everything else in words. */
function shortName(segment: Segment, kindName: string, alone: boolean): string {
  return levelOfLabel(segment.label) ?? (alone ? kindName : segmentName(segment.label));
}

export function Legend({ overlay, hidden, onHidden, opacity, onOpacity, focus }: LegendProps) {
  const { t } = useTranslation();
  const flip = (numbers: number[], hide: boolean) => {
    const next = new Set(hidden);
    for (const number of numbers) {
      if (hide) next.add(number);
      else next.delete(number);
    }
    onHidden(next);
  };
  const groups = KINDS.map((kind) => ({ kind, segments: overlay.segments.filter((segment) => kindOf(segment.label) === kind) }));
  return (
    <div className="legend" data-testid="legend">
      <div className="legend-opacity">
        <span>{t("review.opacity")}</span>
        <Slider min={0} max={1} step={0.05} value={opacity} onChange={onOpacity} tooltip={{ formatter: (value) => `${Math.round((value ?? 0) * 100)}%` }} ariaLabelForHandle={t("review.opacity")} />
      </div>
      {groups
        .filter((group) => group.segments.length > 0)
        .map(({ kind, segments }) => (
          <LegendGroup key={kind} name={t(`review.kind.${kind}`)} segments={segments} hidden={hidden} onFlip={flip} focus={focus} />
        ))}
    </div>
  );
}

interface GroupProps {
  name: string;
  segments: Segment[];
  hidden: ReadonlySet<number>;
  onFlip: (numbers: number[], hide: boolean) => void;
  focus: string | undefined;
}

/** Structures of one kind; those of a kind that has many are shown one by one on demand, as they would take the image's place. */
function LegendGroup({ name, segments, hidden, onFlip, focus }: GroupProps) {
  const { t } = useTranslation();
  const many = segments.length > MOST_AT_ONCE;
  const [each, setEach] = useState(!many);
  const numbers = segments.map((segment) => segment.number);
  const allHidden = numbers.every((number) => hidden.has(number));
  return (
    <div className="legend-group">
      {segments.length > 1 ? (
        <Button
          size="small"
          type="text"
          icon={allHidden ? <EyeInvisibleOutlined aria-hidden /> : <EyeOutlined aria-hidden />}
          aria-pressed={!allHidden}
          onClick={() => onFlip(numbers, !allHidden)}
        >
          {name}
        </Button>
      ) : null}
      {many ? (
        <Button size="small" type="text" aria-expanded={each} data-testid="legend-each" onClick={() => setEach(!each)}>
          {t(each ? "review.fold" : "review.each", { count: segments.length })}
        </Button>
      ) : null}
      {(each ? segments : []).map((segment) => (
        <LegendItem
          key={segment.number}
          segment={segment}
          name={shortName(segment, name, segments.length === 1)}
          hidden={hidden.has(segment.number)}
          focused={focus !== undefined && levelOfLabel(segment.label) === focus}
          onFlip={() => onFlip([segment.number], !hidden.has(segment.number))}
        />
      ))}
    </div>
  );
}

interface ItemProps {
  segment: Segment;
  name: string;
  hidden: boolean;
  focused: boolean;
  onFlip: () => void;
}

function LegendItem({ segment, name, hidden, focused, onFlip }: ItemProps) {
  return (
    <button
      type="button"
      className={`legend-item${hidden ? " off" : ""}${focused ? " focused" : ""}`}
      aria-pressed={!hidden}
      title={segment.label}
      onClick={onFlip}
    >
      <span className="swatch" style={{ background: `rgb(${colourOf(segment).join(" ")})` }} aria-hidden />
      {name}
    </button>
  );
}
