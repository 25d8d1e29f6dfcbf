/** The frame of every screen: product, patient, language, who is signed in, and the two standing notices. */
import { GlobalOutlined, UserOutlined } from "@ant-design/icons";
import { Button } from "antd";
import type { ReactNode } from "react";
import { useTranslation } from "react-i18next";
import { switchLanguage } from "../i18n";
import { NotADeviceFooter, SyntheticBanner } from "./Banners";

export function LanguageSwitch() {
  const { i18n, t } = useTranslation();
  const chinese = i18n.language !== "en-US";
  return (
    <Button
      type="text"
      icon={<GlobalOutlined aria-hidden />}
      className="header-button"
      data-testid="language-switch"
      aria-label={t("frame.language")}
      onClick={() => void switchLanguage(chinese ? "en-US" : "zh-CN")}
    >
      {chinese ? "English" : "中文"}
    </Button>
  );
}

function Logo() {
  return (
    <svg width="26" height="26" viewBox="0 0 32 32" aria-hidden>
      <rect width="32" height="32" rx="7" fill="#ffffff22" />
      <path
        fill="#fff"
        d="M16 5c5.500 0 8.500 4.600 8.500 11S21.500 27 16 27 7.500 22.400 7.500 16 10.500 5 16 5Zm0 4.200c-2.600 0-4.200 2.700-4.200 6.800s1.600 6.800 4.200 6.800 4.200-2.700 4.200-6.800-1.600-6.800-4.200-6.800Z"
      />
    </svg>
  );
}

interface FrameProps {
  title: string;
  synthetic?: boolean;
  /** What has to be read before anything else on the screen. */
  warning?: ReactNode;
  patient?: ReactNode;
  userName?: string;
  actions?: ReactNode;
  children: ReactNode;
}

export function AppFrame({ title, synthetic = false, warning, patient, userName, actions, children }: FrameProps) {
  return (
    <div className="app">
      <header className="app-header">
        <Logo />
        <h1>{title}</h1>
        <div className="app-header-middle">{patient}</div>
        {userName ? (
          <span className="app-user">
            <UserOutlined aria-hidden /> {userName}
          </span>
        ) : null}
        <LanguageSwitch />
        {actions}
      </header>
      {synthetic ? <SyntheticBanner /> : null}
      {warning}
      <main className="app-main">{children}</main>
      <NotADeviceFooter />
    </div>
  );
}
