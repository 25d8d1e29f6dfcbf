/** Which colour is which structure; each can be hidden. */
import { EyeInvisibleOutlined, EyeOutlined } from "@ant-design/icons";
import { Button, Slider } from "antd";
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
        .map(({ kind, segments }) => {
          const numbers = segments.map((segment) => segment.number);
          const allHidden = numbers.every((number) => hidden.has(number));
          return (
            <div key={kind} className="legend-group">
              {segments.length > 1 ? (
                <Button
                  size="small"
                  type="text"
                  icon={allHidden ? <EyeInvisibleOutlined aria-hidden /> : <EyeOutlined aria-hidden />}
                  aria-pressed={!allHidden}
                  onClick={() => flip(numbers, !allHidden)}
                >
                  {t(`review.kind.${kind}`)}
                </Button>
              ) : null}
              {segments.map((segment) => (
                <LegendItem
                  key={segment.number}
                  segment={segment}
                  name={shortName(segment, t(`review.kind.${kind}`), segments.length === 1)}
                  hidden={hidden.has(segment.number)}
                  focused={focus !== undefined && levelOfLabel(segment.label) === focus}
                  onFlip={() => flip([segment.number], !hidden.has(segment.number))}
                />
              ))}
            </div>
          );
        })}
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
