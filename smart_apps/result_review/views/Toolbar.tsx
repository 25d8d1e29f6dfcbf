/** What the mouse or a finger does, window presets, slice slider, reset. */
import { ColumnHeightOutlined, DragOutlined, RedoOutlined, SunOutlined, ZoomInOutlined } from "@ant-design/icons";
import { Button, Segmented, Select, Slider, Tooltip } from "antd";
import { useTranslation } from "react-i18next";
import type { DragTool } from "../stack_viewer";

/** Factors on width and level of the window the series came with: MR has no absolute units, so presets are relative. */
const PRESETS = {
  original: { width: 1, level: 1 },
  contrast: { width: 0.6, level: 1 },
  soft: { width: 1.5, level: 1.1 },
  bright: { width: 0.8, level: 0.65 },
  fluid: { width: 0.8, level: 1.45 },
};
type Preset = keyof typeof PRESETS;

interface ToolbarProps {
  tool: DragTool;
  /** Fingers instead of a mouse: two of them always zoom, so that one needs no tool for it. */
  touch: boolean;
  onTool: (tool: DragTool) => void;
  onWindow: (width: number, level: number) => void;
  onReset: () => void;
  index: number;
  count: number;
  onIndex: (index: number) => void;
  disabled: boolean;
}

export function Toolbar({ tool, touch, onTool, onWindow, onReset, index, count, onIndex, disabled }: ToolbarProps) {
  const { t } = useTranslation();
  const icons = { window: <SunOutlined />, pan: <DragOutlined />, zoom: <ZoomInOutlined />, scroll: <ColumnHeightOutlined /> };
  const choices = (Object.keys(icons) as DragTool[]).filter((value) => !touch || value !== "zoom");
  const options = choices.map((value) => ({
    value,
    label: (
      <Tooltip title={touch ? undefined : t(`review.toolHelp.${value}`)}>
        <span>
          {icons[value]} {t(`review.tool.${value}`)}
        </span>
      </Tooltip>
    ),
  }));
  const presets = (Object.keys(PRESETS) as Preset[]).map((value) => ({ value, label: t(`review.preset.${value}`) }));
  return (
    <div className="image-toolbar" role="toolbar" aria-label={t("review.tools")}>
      <Segmented<DragTool> size="small" options={options} value={tool} onChange={onTool} disabled={disabled} />
      {touch ? <span className="touch-help">{t("review.touchHelp")}</span> : null}
      <Select<Preset>
        size="small"
        style={{ width: 148 }}
        value={null as unknown as Preset}
        placeholder={t("review.presets")}
        aria-label={t("review.presets")}
        options={presets}
        disabled={disabled}
        onSelect={(value) => onWindow(PRESETS[value].width, PRESETS[value].level)}
      />
      <Button size="small" icon={<RedoOutlined aria-hidden />} onClick={onReset} disabled={disabled}>
        {t("review.reset")}
      </Button>
      <div className="slice-slider">
        <Slider
          min={0}
          max={Math.max(0, count - 1)}
          value={index}
          onChange={onIndex}
          disabled={disabled || count < 2}
          tooltip={{ formatter: (value) => `${(value ?? 0) + 1} / ${count}` }}
          ariaLabelForHandle={t("review.sliceSlider")}
        />
      </div>
    </div>
  );
}
