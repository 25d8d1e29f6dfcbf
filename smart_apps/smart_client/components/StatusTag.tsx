/** A state in words with an icon and a colour: colour is never the only cue. */
import {
  CheckCircleFilled,
  ClockCircleOutlined,
  CloseCircleFilled,
  EditFilled,
  ExclamationCircleFilled,
  MinusCircleOutlined,
  PauseCircleFilled,
  RobotOutlined,
  StopOutlined,
  SyncOutlined,
} from "@ant-design/icons";
import { Tag } from "antd";
import type { ComponentType } from "react";
import { useTranslation } from "react-i18next";

type Look = { icon: ComponentType<{ "aria-hidden"?: boolean }>; color: string };

const WAITING: Look = { icon: ClockCircleOutlined, color: "default" };
const LOOKS: Record<string, Look> = {
  requested: WAITING,
  received: WAITING,
  accepted: WAITING,
  ready: WAITING,
  "in-progress": { icon: SyncOutlined, color: "processing" },
  "on-hold": { icon: PauseCircleFilled, color: "warning" },
  completed: { icon: CheckCircleFilled, color: "success" },
  recalled: { icon: StopOutlined, color: "error" },
  rejected: { icon: MinusCircleOutlined, color: "default" },
  cancelled: { icon: MinusCircleOutlined, color: "default" },
  failed: { icon: CloseCircleFilled, color: "error" },
  partial: { icon: RobotOutlined, color: "warning" },
  preliminary: { icon: RobotOutlined, color: "warning" },
  draft: { icon: RobotOutlined, color: "warning" },
  final: { icon: CheckCircleFilled, color: "success" },
  active: { icon: CheckCircleFilled, color: "success" },
  amended: { icon: EditFilled, color: "blue" },
  corrected: { icon: EditFilled, color: "blue" },
  "entered-in-error": { icon: CloseCircleFilled, color: "error" },
  revoked: { icon: CloseCircleFilled, color: "default" },
  unknown: { icon: ExclamationCircleFilled, color: "default" },
};

export function statusWord(t: ReturnType<typeof useTranslation>["t"], status: string): string {
  return t(`status.${status}` as "status.final", { defaultValue: status });
}

export function StatusTag({ status, testId }: { status: string; testId?: string }) {
  const { t } = useTranslation();
  const look = LOOKS[status] ?? WAITING;
  const Icon = look.icon;
  return (
    <Tag color={look.color} icon={<Icon aria-hidden />} data-testid={testId} data-status={status} className="status-tag">
      {statusWord(t, status)}
    </Tag>
  );
}
